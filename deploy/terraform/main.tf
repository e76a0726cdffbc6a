data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  config   = var.config == null ? file("${path.module}/dray.yaml") : var.config
  parsed   = yamldecode(local.config)
  listener = tonumber(regex("[0-9]+$", local.parsed.listeners[0].address))
  health   = tonumber(regex("[0-9]+$", local.parsed.admin.health_address))

  # The documented policies, for this account and region.
  documented = file("${path.module}/../iam/${var.push ? "push" : "pull"}.json")
  policy = replace(replace(local.documented, "arn:aws:", "arn:${data.aws_partition.current.partition}:"),
  "eu-west-1:123456789012", "${var.region}:${data.aws_caller_identity.current.account_id}")

  # Files are written by a shell, because ECS mounts neither text nor secrets. The variables have
  # numbers, because names of files are no names of variables.
  secrets = { for i, name in sort(keys(var.secret_files)) : "FILE_${i}" => name }
  script = join("\n", concat(
    ["set -eu", "umask 077", "printf %s \"$CONFIG\" | base64 -d > /etc/dray/dray.yaml"],
    [for variable, name in local.secrets : "printf '%s\\n' \"$${${variable}}\" > /etc/dray/${name}"],
    ["chown -R 65532:65532 /etc/dray /cache /tmp"],
  ))

  logs = {
    logDriver = "awslogs"
    options = {
      awslogs-group         = aws_cloudwatch_log_group.this.name
      awslogs-region        = var.region
      awslogs-stream-prefix = var.name
    }
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/ecs/${var.name}"
  retention_in_days = 30
  tags              = var.tags
}

resource "aws_ecs_cluster" "this" {
  name = var.name
  tags = var.tags
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  task_role_arn            = aws_iam_role.task.arn
  execution_role_arn       = aws_iam_role.execution.arn
  tags                     = var.tags

  ephemeral_storage {
    size_in_gib = var.disk
  }

  volume {
    name = "files"
  }

  volume {
    name = "cache"
  }

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([
    {
      name        = "files"
      image       = var.shell_image
      essential   = false
      command     = ["sh", "-c", local.script]
      environment = [{ name = "CONFIG", value = base64encode(local.config) }]
      secrets     = [for variable, name in local.secrets : { name = variable, valueFrom = var.secret_files[name] }]
      mountPoints = [
        { sourceVolume = "files", containerPath = "/etc/dray", readOnly = false },
        { sourceVolume = "cache", containerPath = "/cache", readOnly = false },
        { sourceVolume = "tmp", containerPath = "/tmp", readOnly = false },
      ]
      readonlyRootFilesystem = true
      logConfiguration       = local.logs
    },
    {
      name        = "dray"
      image       = var.image
      essential   = true
      command     = ["serve"]
      user        = "65532:65532"
      dependsOn   = [{ containerName = "files", condition = "SUCCESS" }]
      environment = [{ name = "DRAY_CONFIG", value = "/etc/dray/dray.yaml" }]
      mountPoints = [
        { sourceVolume = "files", containerPath = "/etc/dray", readOnly = true },
        { sourceVolume = "cache", containerPath = "/cache", readOnly = false },
        { sourceVolume = "tmp", containerPath = "/tmp", readOnly = false },
      ]
      portMappings           = [{ containerPort = local.listener, protocol = "tcp" }, { containerPort = local.health, protocol = "tcp" }]
      readonlyRootFilesystem = true
      linuxParameters        = { capabilities = { drop = ["ALL"] } }
      stopTimeout            = 120
      healthCheck            = { command = ["CMD", "/bin/dray", "health"], interval = 30, timeout = 10, retries = 3, startPeriod = 60 }
      logConfiguration       = local.logs
    },
  ])

  lifecycle {
    precondition {
      condition     = alltrue([for u in try(local.parsed.upstreams, []) : try(u.acknowledge, "") != "local" && try(u.kind, "") != "local"])
      error_message = "The disk of a task ends with the task: neither acknowledge: local nor upstreams of kind local can be used here."
    }
  }
}

resource "aws_ecs_service" "this" {
  name            = var.name
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.this.arn
  launch_type     = "FARGATE"
  desired_count   = var.replicas
  tags            = var.tags

  health_check_grace_period_seconds = 120

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.task.id]
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this.arn
    container_name   = "dray"
    container_port   = local.listener
  }

  depends_on = [aws_lb_listener.this]
}
