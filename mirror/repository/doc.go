// Package repository finds out, for each repository of an upstream, where its content is, and
// whether dray may serve it.
//
// [Repo.LocateBlob] and [Repo.LocateManifest] are the only code that decides where content is. The
// places are the cache, the staged blobs, the waiting manifests, the queue of pushes, the build
// caches, the facts about the upstream (cache/meta), and the upstream itself. One table in
// locate.go lists the places for each need, in the order in which they are asked. A new place would
// be added there.
//
// The package records and deletes facts about content. It owns [Staging] and [Waiting], because the
// Locate methods look into both. Staging has the blobs of pushes. Waiting has the manifests that
// passed their checks and wait for a manifest that refers to them.
//
// Invariants:
//   - All repositories share the bytes of a digest, but not its visibility. There are only two
//     cases in which dray serves an upstream's content without asking the upstream. In the first,
//     the upstream has confirmed that the repository has the digest. In the second, a manifest that
//     came through the repository names the digest, and the upstream has sent or accepted content
//     with this digest, in any of its repositories.
//   - If the store of facts fails, dray asks the upstream instead. No pull fails because of it.
package repository
