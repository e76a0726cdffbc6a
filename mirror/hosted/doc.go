// Package hosted is a registry whose content is stored only here: pushes to it are not forwarded.
//
// The mirror uses it like any other upstream: it is a Source, a Sink, a Lister and a Deleter.
// Rules that drop old tags name repositories by patterns.
//
// Invariants:
//   - The manifests and tags of a repository are one file. A new version replaces it by one
//     rename, when it and all content that it names are on stable storage. So an acknowledged
//     push survives a kill -9, and no push is ever half there.
//   - Bytes are blobs of the cache, kept from eviction while a repository needs them. Nothing is
//     copied: a client's upload is in the cache already.
//   - Losing the store of facts loses no hosted content. Losing the directory of the cache loses
//     the content. A repository whose blob is gone answers "not found", and the next push of the
//     blob repairs it.
//   - A repository keeps a blob for Options.Grace after a client asked for it, so that no garbage
//     collection comes between a client that leaves out a layer and the manifest that needs it.
//   - There is no file I/O while contents.mu is held.
package hosted
