// Package ecr is everything that is AWS about Amazon ECR and ECR Public: host names, authorization
// tokens, the creation of repositories, and the quirks of the two registries as values.
//
// What it holds to:
//
//   - it is the only package of the upstreams that imports the AWS SDK, and sees each call through an interface of one
//     method;
//   - one token per principal and region, in memory only, with one call in flight; it is renewed at half of its life, and
//     the old one serves until it expires while the renewal fails;
//   - after a failure AWS is left alone for a while, however many requests come.
package ecr
