// Package admin serves operators over HTTP: metrics, health, profiles and a JSON API.
//
// Invariants:
//   - It has no authentication. Its listener decides who can reach it; by default, only this
//     machine can.
//   - A web page in a browser on this machine must not reach it. A page could make its own host
//     name resolve to this address, so requests to host names that are not configured are refused.
//     So are requests that a browser marks as coming from another site. Requests that change
//     anything must also have a form that no such page can send.
//   - It imports none of the parts of dray that it shows or changes: the program passes in
//     functions.
//   - It registers nothing on http.DefaultServeMux itself, but net/http/pprof does. So no server
//     of the process may use that mux.
package admin
