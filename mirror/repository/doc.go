// Package repository is one repository of one upstream: where its content is, and which requests
// may have it.
//
// [Repo.LocateBlob] and [Repo.LocateManifest] are the only code that decides where content is. The
// places are the cache, the staged blobs, the waiting manifests, the queue of pushes, the build
// caches, the facts about the upstream (cache/meta), and the upstream itself. One table in
// locate.go lists the places for each need, in the order in which they are asked. A new place, such
// as another member of a fleet, is added there.
//
// The package records and forgets facts about content. It owns two tables, because the Locate
// methods look into both: [Staging] has the blobs of pushes, and [Waiting] has the manifests that
// passed their checks and wait for the index that refers to them.
//
// Invariants:
//   - Bytes are shared by all repositories, visibility is not. A repository may be served a digest
//     without a question to the upstream only if a manifest that came through the repository names
//     the digest, and the digest came through the same upstream.
//   - A store of facts that fails costs a question to the upstream, never a pull.
package repository
