// Package cloudwatch publishes selected counters to Amazon CloudWatch every minute.
//
// Invariants:
//   - It takes the counts of pulls from the Prometheus gatherer, so a pull never causes a call to
//     AWS.
//   - Data points that could not be published are sent with a later request, with their original
//     timestamps. A bounded number of data points waits; beyond that number, the oldest ones are
//     dropped and counted.
//   - No error here stops dray.
package cloudwatch
