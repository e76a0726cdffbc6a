// Package logbuffer writes dray's log. It buffers the lines of the access log for a short time, and
// keeps them in order with all other lines of the log.
package logbuffer
