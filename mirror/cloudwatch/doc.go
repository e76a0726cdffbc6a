// Package cloudwatch publishes selected counters to Amazon CloudWatch every minute.
//
// Invariants:
//   - It reads the counts of pulls from the Prometheus gatherer, so a pull never causes a call to
//     AWS.
//   - If a request fails, its data points are sent again later, with their original timestamps. A
//     bounded number of data points waits. The package drops the oldest ones beyond that number,
//     and data points that CloudWatch refuses. It counts all that it drops.
//   - No error here stops dray.
package cloudwatch
