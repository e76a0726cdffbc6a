// Package ecrtest is a fake Amazon ECR for tests, demos and benchmarks. It behaves, and
// misbehaves, like the real one.
//
// Its rules:
//
//   - It is an oracle, and shares no code with the programs that it tests: it imports nothing
//     of this module, and parses every request and renders every answer itself.
//   - The behaviour of a registry is data. Quirks hold the well-attested behaviour of a kind of
//     registry. Switches have one field for each behaviour of ECR that nobody could verify. The
//     comment of the field names the sources, and the server works with each value of the field.
//     RefusedManifests lists what ECR was seen to refuse. References such as roadmap#1970 name
//     issues on GitHub; "roadmap" is aws/containers-roadmap.
//   - Apart from the differences below, it is never kinder than ECR, so that a program that works
//     with ecrtest also works with ECR. Where sources disagree, the default is what AWS says or, if
//     AWS says nothing, the likelier value.
//   - The bytes of blobs are in files below one directory, and are hashed as they arrive. All
//     other state is in memory, and is lost on Close.
//   - New starts nothing. The handlers may be mounted anywhere. Listen binds a listener for each of
//     the four handlers, and Running.Run serves them.
//   - One mutex guards the state of the registries. It is never held during I/O. Faults and the
//     journal have mutexes of their own.
//
// # Known differences
//
// It differs from ECR in three ways:
//
//   - It never converts to schema 1, as ECR does for clients that accept nothing newer (ECR guide,
//     image-manifest-formats). Clients that pull schema 1 by tag are gone.
//   - Every principal may do everything in every account, unless a Denial forbids it. ecrtest needs
//     no model of rights, because with ECR, operators grant them, and the program under test does
//     not. Repository policies are stored and have no effect (ECR guide, registry-permissions).
//   - Signatures of requests to the API are not verified, session tokens are not asked for, and
//     clocks may differ. To verify the signatures of the SDK, the stand-in would need the secrets
//     of clients.
package ecrtest
