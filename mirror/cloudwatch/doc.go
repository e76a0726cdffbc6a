// Package cloudwatch publishes chosen counters to Amazon CloudWatch, by the
// minute.
//
// Invariants:
//   - It only reads the Prometheus gatherer, and of package pulls the names of its counters: what is published was counted once,
//     elsewhere. A pull never causes a call.
//   - What could not be published keeps the minute it happened in and goes with
//     a later request. Only a bounded number of data points waits; the oldest
//     are dropped, and counted, first.
//   - Nothing that happens here ends the service.
package cloudwatch
