// Package admin serves operators over HTTP: metrics, health, profiles and a JSON API.
//
// Invariants:
//   - Everybody who reaches the admin listener may read health and metrics. [identity.Operators]
//     decides about all other requests: reading needs the action "view", and changes and profiles
//     need "operate".
//   - A web page in a browser on this machine must not reach the listener. A page could make its
//     own host name resolve to the listener's address. So the package refuses requests to host
//     names that are not configured, except requests for health and metrics. It also refuses
//     requests that a browser marks as coming from another site. Requests that change anything must
//     also be of a kind that a page of another site cannot send: their Content-Type is
//     application/json.
//   - The package imports none of the parts of dray that it shows or changes. The program passes in
//     functions instead.
//   - The imported package net/http/pprof registers handlers on http.DefaultServeMux. So no server
//     of the process may use that mux.
package admin
