// Package cloudwatch publishes selected counters to Amazon CloudWatch every minute.
//
// Invariants:
//   - It reads the counts of pulls from the Prometheus gatherer, so a pull never causes a call to
//     AWS.
//   - Data points that could not be published are sent with a later request, with their original
//     timestamps. A bounded number of data points waits. Beyond that number, the package drops the
//     oldest ones, and counts them.
//   - No error here stops dray.
package cloudwatch
