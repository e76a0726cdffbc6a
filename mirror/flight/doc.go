// Package flight runs work that is shared, ordered or done later: one call for many callers
// ([Group]), a mutex per key ([Mutex]), tasks that end with the program ([Tasks]), and a bounded
// queue of jobs ([Jobs]).
//
// It imports nothing of dray: it does not know what the work is. The cache has flights of its own,
// because a fetch has readers that follow it.
package flight
