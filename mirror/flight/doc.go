// Package flight runs work that is shared, serialised or deferred: one call for many callers
// ([Group]), a mutex per key ([Mutex]), tasks that end with the program ([Tasks]), and a bounded
// queue of jobs ([Jobs]).
//
// It imports nothing of dray, and takes work of any kind. The cache has flights of its own, because
// its readers read the bytes of a fetch while they arrive.
package flight
