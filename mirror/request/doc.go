// Package request is a request under way: the client (identity), the repository (route finds the
// name, repository has the content), the values of the listener, and the answer (wire).
//
// A handler gets a [Request], and knows nothing of the front door.
package request
