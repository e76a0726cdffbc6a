// Package api holds the types of the operators' API, for those who answer and for those who ask.
package api
