// Package upstream talks to one registry over HTTP.
//
// Its rules:
//
//   - An error of its interfaces carries an *oci.Error that can be sent to a client unchanged. Two
//     errors carry none: the context was cancelled, or the bytes to upload cannot be read. If the
//     registry has said nothing about the content, for example because it is unreachable, the
//     status of the *oci.Error is usually a 5xx, and a 404 only if the error wraps
//     ErrReferrersUnsupported. Callers tell the errors apart by the variables Err… of this package.
//   - The package computes the digest of each manifest that it gets. It refuses the manifest if
//     the caller or the registry states another digest. The caller verifies the bytes of a blob.
//   - When the package follows a redirect to another host, it does not send the registry's
//     credentials there.
//   - Differences between registries are data (Quirks), not code that looks at host names.
//   - Each wrapper has one concern: Retry repeats reads, Breaker refuses requests while a registry
//     fails, Limiter paces requests, and Creating creates missing repositories. Client itself
//     repeats writes, because only it can tell whether that is safe.
package upstream
