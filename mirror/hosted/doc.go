// Package hosted is a registry whose content is stored only here: pushes to it are not forwarded.
//
// The mirror uses a [Store] like any other upstream: it is a Source, a Sink, a Lister and a Deleter
// of package upstream.
//
// Invariants:
//   - One file lists the manifests and tags of a repository. A new version of the file is first
//     written beside the old one. When the new version and all content that it names are on stable
//     storage, one rename replaces the old version. So an acknowledged push survives a kill -9, and
//     half a push is never visible.
//   - Bytes are blobs of the cache, kept from eviction while a repository needs them. Nothing is
//     copied: a client's upload is in the cache already.
//   - Losing the store of facts loses no hosted content. Losing the directory of the cache loses
//     the content. If the bytes of a blob are gone, requests for the blob are answered with "not
//     found". The next push of the blob repairs the repository.
//   - A repository keeps a blob for Options.Grace after a client asked for it. If the client leaves
//     the blob out of a push because the repository has it, the blob is still there when the
//     manifest arrives.
//   - There is no file I/O while contents.mu is held.
package hosted
