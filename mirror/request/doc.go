// Package request has the [Request], a client's request under way. It joins the client (identity),
// the repository (route finds its name, and package repository its content), the settings of the
// listener, and the answer (wire).
//
// A handler gets a [Request], and does not import package mirror, which calls the handler.
package request
