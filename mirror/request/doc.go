// Package request is one request on its way: who asks, for which repository,
// through which listener, and what became of it.
package request
