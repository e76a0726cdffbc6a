// Package proxied finds the clients behind proxies and load balancers that the operator trusts.
//
// Invariants:
//   - Only a connection from a trusted address can name another client, by the PROXY protocol or by
//     a header. From anybody else, these mean nothing.
//   - The client is the last address on the way that is not trusted: a client can invent all
//     addresses before its own, but not the one that the first trusted proxy saw.
//   - [Peer] recognises each request from a trusted proxy, whichever client the request names.
package proxied
