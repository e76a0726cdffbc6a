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
//   - A refusal of one repository is not one of the credential: that is refused if it is refused
//     without any repository, or by /v2/. Where no credentials are configured there are none to
//     refuse.
//   - A refused credential is not shown again before a pause, which grows from 5 s to 5 minutes,
//     unless it changes.
//   - Credentials that nobody has asked for yet are not held back: /v2/ is asked first.
//   - No secret appears in an error, a log line or a formatted value.
package auth
