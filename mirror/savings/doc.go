// Package savings calculates what the transfers would have cost that a mirror avoids, and what the
// mirror itself costs. It is arithmetic on values: it reads no counters, files or clocks.
//
// Invariants:
//   - A byte is saved if clients got it and the upstream did not send it for that. Bytes that
//     upstreams sent for nobody, such as an unused prefetch, reduce the savings. These can be
//     negative.
//   - A price that is not known counts as 0, and the result names the key that has to be set.
package savings
