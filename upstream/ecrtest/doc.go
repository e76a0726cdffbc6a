// Package ecrtest is a fake Amazon ECR for tests, demos and benchmarks. It behaves, and misbehaves,
// like the real ECR.
//
// Its rules:
//
//   - It is an oracle, and shares no code with the programs that it tests: it imports nothing
//     of this module, and parses every request and renders every answer itself.
//   - The behaviour of a registry is data. Quirks describe the well-attested behaviour of a kind of
//     registry. Switches have one field for each behaviour of ECR that nobody could verify. The
//     comment of each field cites its sources. The server has every behaviour that a field can
//     select, so that a client can be tested with each of them. RefusedManifests lists manifests
//     that ECR was seen to refuse. References such as roadmap#1970 name issues on GitHub; "roadmap"
//     is aws/containers-roadmap.
//   - Apart from the differences below, ecrtest is never more lenient than ECR, so that a program
//     that works with ecrtest also works with ECR. Where sources disagree, the default is the value
//     that AWS states or, if AWS states none, the more likely value.
//   - The bytes of blobs are in files below one directory, and are hashed as they arrive. All
//     other state is in memory, and is lost on Close.
//   - New starts nothing. The handlers may be mounted anywhere. Listen binds a listener for each of
//     the four handlers, and Running.Run serves them.
//   - One mutex guards the state of the registries. It is never held during I/O. Faults and the
//     journal have mutexes of their own.
//
// # Known differences
//
// ecrtest differs from ECR in three ways:
//
//   - ECR converts manifests to schema 1 for clients that accept nothing newer (ECR guide,
//     image-manifest-formats). ecrtest does not, because no current client pulls schema 1 by tag.
//   - Every principal may do everything in every account, unless a Denial forbids it. ecrtest has
//     no model of rights, because the program under test never grants any: operators do that at
//     AWS. ecrtest stores repository policies, but they have no effect (ECR guide,
//     registry-permissions).
//   - ecrtest does not verify the signatures of requests to the API, requires no session tokens,
//     and accepts clocks that differ. To verify the signatures of the SDK, ecrtest would need the
//     secrets of clients.
package ecrtest
