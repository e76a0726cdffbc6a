// Package auth authorises requests to a registry, with Basic or with tokens, as the registry's
// challenges demand.
//
// A Transport serves one registry. Its rules:
//
//   - Credentials and tokens go only to the registry's own scheme, host and port, and to the token
//     endpoint that the registry names.
//   - For each scope there is at most one token, and at most one token request in flight. A token
//     is renewed before it expires. While one request renews it, the others use the old token. If
//     the renewal fails, all use the old token.
//   - A refused request is repeated at most once, with another authorization, and only if its
//     body can be sent again.
//   - A refusal for one repository does not mean that the registry refuses the credential. The
//     credential counts as refused if the token endpoint refuses it in a request that names no
//     repository, or if /v2/ refuses it. If /v2/ accepts anonymous requests, its answer says
//     nothing about the credential. In this case, a 401 for content counts as a refusal of the
//     credential.
//   - The Transport does not send a refused credential again during a pause, which grows from 5 s
//     to 5 minutes. The pause ends early if the credential changes.
//   - Before the Transport uses a credential for the first time, it asks /v2/ whether the registry
//     wants Basic or tokens. With a Credential that is Preemptive it sends Basic without asking.
//   - No secret appears in an error, a log line or a formatted value.
package auth
