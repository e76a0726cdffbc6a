// Package hosted is a registry whose content lies here alone: what is pushed to it is never sent
// on.
//
// It is an upstream like others to the mirror: a Source, a Sink, a Lister and a Deleter. Rules that
// drop what is old name repositories by patterns. Invariants:
//
//   - What a repository has (its manifests and tags) is one file, replaced by one rename after it is on stable storage, and
//     only after everything that it names is. An acknowledged push survives a kill -9, and a half one was never there.
//   - Bytes are blobs of the cache, kept from eviction while a repository needs them. Nothing is copied: what a client
//     pushed is in the cache already.
//   - Losing the store of facts loses nothing here. Losing the directory of the cache loses what was hosted; a repository
//     that needs a blob that is gone answers "not found", and the next push of it heals that.
//   - A blob that a repository was asked about is its for Options.Grace, so that no garbage collection comes between a
//     client that leaves out a layer and the manifest that needs it.
//   - No file is touched while contents.mu is held.
package hosted
