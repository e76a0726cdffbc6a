// Package config is what dray can be told: the types of the file and of the environment, how they are read,
// their defaults, and what can be wrong with them. It knows none of the parts that it configures; they look at a
// configuration through a [Validator].
package config
