// Package explain says, for the name of an image, which repository it means, what dray knows about
// it, and which requests to the upstream a pull would cost now. It sends no request, uses no
// content and changes no fact.
package explain
