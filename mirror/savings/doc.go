// Package savings calculates the price of the transfers that a mirror makes unnecessary, and the
// costs of the mirror itself. It is arithmetic on values: it reads no counters, files or clocks.
//
// Invariants:
//   - The saved bytes are the bytes that clients got, minus the bytes that upstreams sent. Bytes
//     that upstreams sent for no client, such as an unused prefetch, are subtracted, too. So the
//     result can be negative.
//   - An unknown price counts as 0, and the result names the key of the configuration that sets it.
package savings
