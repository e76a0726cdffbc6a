// Package flight is work that is shared, ordered or done later: one call for many callers, a mutex
// per key, tasks that end with the program, and bounded jobs.
package flight
