// Package admin serves operators over HTTP: metrics, health, profiles and a JSON API.
//
// Invariants:
//   - It has no authentication. Its listener decides who can reach it; by default, only this
//     machine can.
//   - A web page in a browser on this machine must not reach it. Requests under host names that a
//     page could have rebound to this address are refused, and so are requests that a browser
//     marks as coming from another site. Requests that change anything must also have a form that
//     no such page can send.
//   - It knows nothing about the rest of dray: the composition root passes in functions.
//   - It registers nothing on http.DefaultServeMux itself, but net/http/pprof does. So no server
//     of the process may use that mux.
package admin
