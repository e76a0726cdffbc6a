// Package ecr contains all code that is specific to Amazon ECR and ECR Public: authorization
// tokens, the creation of repositories, the deletion of images, and the quirks of the two
// registries.
//
// Its rules:
//
//   - It is the only package below upstream that imports the AWS SDK. It uses the calls of the
//     API through small interfaces.
//   - There is one token per [Principal], in memory only, and at most one call in flight to get or
//     renew the token. The token is renewed at half its life. While the renewal fails, the token is
//     used until it expires.
//   - After a failed call for a token, dray makes no such call until a pause is over, however many
//     requests need a token.
package ecr
