// Package logbuffer holds back lines of the access log for a moment, and keeps all lines of the log
// in order.
package logbuffer
