// Package request is one request on its way: the client (identity), the repository that it means
// (route finds the name, repository has the content), the listener that it came through as values,
// and its answer (wire).
//
// Handlers get a [Request] and nothing of the front door.
package request
