// Package upstream talks to one registry over HTTP.
//
// What it holds to:
//
//   - every error that an interface of this package returns carries an *oci.Error, fit for the wire as it is. What is not
//     the registry's own answer about the content is a 5xx there, never a 404, and is told apart by the sentinels of this
//     package;
//   - the identity of a manifest is computed here, and what does not match its digest is an error. The bytes of a blob are
//     the caller's to verify;
//   - redirects are followed here, without credentials;
//   - what registries do differently is data (Quirks), not code that looks at host names;
//   - one concern per wrapper: Retry repeats, Breaker refuses while a registry fails, Limiter paces, Creating creates
//     repositories that are missing. Client itself repeats only
//     uploads, because only it can tell whether a repetition is safe.
package upstream
