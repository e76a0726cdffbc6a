variable "name" {
  description = "The name of all resources."
  type        = string
  default     = "dray"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,20}[a-z0-9]$", var.name))
    error_message = "Use 2 to 22 lower case letters, digits and dashes: the names of load balancers are short."
  }
}

variable "region" {
  description = "The region of the cluster, and of the ECR repositories that dray may use."
  type        = string
}

variable "image" {
  description = "The image of dray. It has to come from a registry that the subnets can reach."
  type        = string
}

variable "config" {
  description = "The configuration of dray, in YAML. Default: dray.yaml beside this file."
  type        = string
  default     = null
}

variable "secret_files" {
  description = "Files below /etc/dray that the configuration names, as a map from their names to the ARNs of secrets, such as { htpasswd = \"arn:…\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.secret_files) : can(regex("^[A-Za-z0-9][A-Za-z0-9._-]*$", name)) && name != "dray.yaml"])
    error_message = "Give names of files without a directory, other than dray.yaml."
  }
}

variable "push" {
  description = "Whether dray may push to ECR: its role gets the policy push.json, otherwise pull.json."
  type        = bool
  default     = false
}

variable "vpc_id" {
  description = "The network of the load balancer and the tasks."
  type        = string
}

variable "subnet_ids" {
  description = "The private subnets of the load balancer and the tasks, in several zones. They need a way to the registries."
  type        = list(string)
}

variable "client_cidrs" {
  description = "The networks of the clients, such as [\"10.0.0.0/16\"]. Whoever reaches a listener without auth may pull."
  type        = list(string)
}

variable "certificate_arn" {
  description = "The certificate, in ACM, of the name by which clients reach dray."
  type        = string
}

variable "replicas" {
  description = "The number of tasks. Give several of them one Redis (metadata.url)."
  type        = number
  default     = 1
}

variable "cpu" {
  description = "The CPU units of a task."
  type        = number
  default     = 2048
}

variable "memory" {
  description = "The memory of a task, in MiB."
  type        = number
  default     = 4096
}

variable "disk" {
  description = "The disk of a task, in GiB. cache.max_bytes has to be less. Fargate has 200 at most."
  type        = number
  default     = 120

  validation {
    condition     = var.disk >= 21 && var.disk <= 200
    error_message = "Fargate gives a task 21 to 200 GiB."
  }
}

variable "shell_image" {
  description = "An image with a shell, which writes the configuration before dray starts: the image of dray has none."
  type        = string
  default     = "public.ecr.aws/docker/library/busybox:stable"
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
