// Package explain says, for the name of an image, which repository it means, what dray knows about
// it, which requests to the upstream a pull would cost now, and what is remembered of the last
// ones.
// It sends no request to an upstream, uses no content and changes no fact. It may ask the bucket
// whether it has something.
package explain
