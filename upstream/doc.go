// Package upstream talks to one registry over HTTP.
//
// Its rules:
//
//   - Every error of its interfaces carries an *oci.Error that can be sent to a client
//     unchanged. An error that is not the registry's answer about the content is a 5xx there,
//     never a 404. The errors Err… of this package tell such errors apart.
//   - The package computes the digest of a manifest, and refuses one that does not match. The
//     caller verifies the bytes of a blob.
//   - It follows redirects, without credentials.
//   - Differences between registries are data (Quirks), not code that looks at host names.
//   - Each wrapper has one concern: Retry repeats reads, Breaker refuses requests while a
//     registry fails, Limiter paces them, and Creating creates missing repositories. Client
//     itself repeats only writes, because only it can tell whether that is safe.
package upstream
