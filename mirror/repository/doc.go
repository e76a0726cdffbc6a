// Package repository is one repository of one upstream: where its content is, and which request may
// have it.
//
// [Repo.LocateBlob] and [Repo.LocateManifest] are the only answer to the question where content is.
// The places are the cache, the blobs that pushes have staged, the queue of pushes, the build
// caches, what facts (cache/meta) remember of the upstream, and the upstream itself. For each need,
// the order in which they are asked stands in one table in locate.go. A new place, such as another
// member of a fleet, is one more row of it.
//
// The package records what it learns about content, and forgets it. It owns two tables, since
// Locate looks into both: [Staging], the blobs that pushes have brought, and [Waiting], the
// manifests that passed their checks and wait for the index that refers to them.
//
// Invariants:
//   - Bytes are shared by all repositories, visibility is not. A repository may
//     see a digest without a question only when a manifest that came through it
//     names the digest, and the digest came through the same upstream.
//   - A store of facts that fails costs a question to the upstream, never a
//     pull.
package repository
