// Package auth turns a registry's challenge into a token, once.
//
// A Transport speaks for one registry. What it holds to:
//
//   - credentials and tokens go to the registry's own origin and to the token endpoint that the registry names, and
//     never to another host;
//   - there is at most one token per scope and one token request in flight for it; it is renewed before it expires, and
//     a held token serves on while its renewal is under way or fails;
//   - a refused request is repeated at most once, with something else to show, and only when its body can be sent again;
//   - no secret appears in an error, a log line or a formatted value.
package auth
