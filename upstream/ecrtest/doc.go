// Package ecrtest is a fake Amazon ECR for tests, demos and benchmarks. It behaves, and
// misbehaves, like the real one.
//
// Its rules:
//
//   - It is an oracle, and shares no code with the programs that it tests: it imports nothing
//     of this module, and parses every request and renders every answer itself.
//   - The behaviour of a registry is data. Quirks hold the well-attested behaviour of a kind of
//     registry. Switches hold one field for each behaviour of ECR that nobody could verify;
//     each value of it works.
//   - The bytes of blobs are in files below one directory, and are hashed as they arrive. All
//     other state is in memory, and is lost on Close.
//   - New starts nothing. The handlers may be mounted anywhere. Listen binds all four, and
//     Running.Run serves them.
//   - One mutex guards the state of the registries. It is never held during I/O. Faults and the
//     journal have their own.
package ecrtest
