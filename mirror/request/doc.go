// Package request has the [Request], a client's request under way. A Request has the client
// (package identity), the repository (package route finds its name, and package repository its
// content), the settings of the listener, and the answer (package wire).
//
// A handler gets a [Request], and does not import package mirror, which calls the handler.
package request
