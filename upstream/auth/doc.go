// Package auth turns the challenge of a registry into a token.
//
// A Transport serves one registry. Its rules:
//
//   - Credentials and tokens go only to the registry's own origin and to the token endpoint
//     that the registry names.
//   - There is at most one token per scope, and one request for it in flight. The token is
//     renewed before it expires, and is used while its renewal is under way or fails.
//   - A refused request is repeated at most once, with another authorization, and only if its
//     body can be sent again.
//   - A refusal for one repository does not mean that the credential is refused. It is refused if
//     the token endpoint refuses it without any repository, or if /v2/ refuses it. Without a
//     configured credential, no refusal concerns one.
//   - A refused credential is not shown again during a pause, which grows from 5 s to 5 minutes,
//     unless the credential changes.
//   - Before the first request with a credential, /v2/ is asked which kind the registry wants,
//     unless the credential is preemptive.
//   - No secret appears in an error, a log line or a formatted value.
package auth
