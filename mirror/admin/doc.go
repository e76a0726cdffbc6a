// Package admin is for those who look after dray: metrics, health, profiles and an
// API of JSON, over HTTP.
//
// Invariants:
//   - It knows no passwords. The listener it is served on decides who reaches
//     it, which by default is this machine alone.
//   - A web page in the browser of somebody on this machine is not somebody:
//     requests by names a page could have rebound to this address, and requests
//     that a browser says come from another site, are refused. What changes anything
//     takes a form besides that no such page can send at all.
//   - It knows nothing about the rest of dray: what it shows and does are functions
//     that the composition root gives it.
//   - Nothing is registered on http.DefaultServeMux on purpose; a side effect of
//     net/http/pprof is that no server of the process may use that one.
package admin
