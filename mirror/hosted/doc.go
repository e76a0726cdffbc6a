// Package hosted is a registry whose content is stored in dray alone: pushes to it are not
// forwarded.
//
// The mirror uses a [Store] like any other upstream: a Store is a Source, a Sink, a Lister and a
// Deleter of package upstream.
//
// Invariants:
//   - One file lists the manifests and tags of a repository. A new version of the file is first
//     written beside the old one. When the new version and all content that it names are on stable
//     storage, one rename replaces the old version. So an acknowledged push survives a kill -9, and
//     a push is never visible in part.
//   - All bytes are blobs of the cache, which does not evict them while a repository needs them.
//     The bytes of a client's upload are usually in the cache already, and are then not copied.
//   - If the store of facts is lost, no hosted content is lost. If the directory of the cache is
//     lost, the hosted content is lost, too. If the bytes of a blob are gone, dray answers requests
//     for the blob with "not found". The next push of the blob repairs the repository.
//   - A repository keeps a blob for Options.Grace after a client asked for it. If the client leaves
//     the blob out of a push because the repository has it, the blob is still there when the
//     manifest arrives.
//   - There is no file I/O while contents.mu is held.
package hosted
