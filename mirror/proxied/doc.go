// Package proxied finds the addresses of clients behind proxies that the operator trusts.
//
// Invariants:
//   - Only a connection from a trusted address can name another address as the client's address, by
//     the PROXY protocol or by a header.
//   - The client is the last address on the way to dray that is not trusted. A client can forge the
//     addresses before its own. It cannot forge its own address, because a trusted proxy has seen
//     it.
//   - For a request from a trusted proxy, [Peer] returns the address of the proxy, whichever client
//     the request names.
package proxied
