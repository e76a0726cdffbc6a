// Package repository is one repository of one upstream: where its content is,
// and which request may have it.
//
// [Repo.LocateBlob] and [Repo.LocateManifest] are the only answer to the
// question where content is. The places, and for each need the order in which
// they are asked, stand in one table in locate.go. A new place, such as another
// member of a fleet, is one more row of it.
//
// The package also records and forgets what it learns about content, and holds
// two tables: the blobs that pushes have staged here, and the manifests that
// wait for one that refers to them.
//
// Invariants:
//   - Bytes are shared by all repositories, visibility is not. A repository may
//     see a digest without a question only when a manifest that came through it
//     names the digest, and the digest came through the same upstream.
//   - A store of facts that fails costs a question to the upstream, never a
//     pull.
package repository
