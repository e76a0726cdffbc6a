// Package proxied finds the addresses of clients behind proxies that the operator trusts.
//
// Invariants:
//   - Only a connection from a trusted address can name another address as that of the client, by
//     the PROXY protocol or by a header.
//   - The client is the last address on the way that is not trusted. It can invent the addresses
//     before its own, but not its own, which a trusted proxy has seen.
//   - [Peer] recognises each request from a trusted proxy, whichever client the request names.
package proxied
