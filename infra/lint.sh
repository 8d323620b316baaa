#!/usr/bin/env bash
# Checks template.yaml and infra/terraform with AWS's linters, a linter of policies, and a comparison of both. Checks the
# workflows with all shell scripts, and examples/hosts. Builds the documentation as a site. Needs python3; brings its tools
# into target/lint, and with `prepare` does no more. Contacts neither AWS nor GitHub.
set -euo pipefail
cd "$(dirname "$0")/.."
export SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true
export PIP_DISABLE_PIP_VERSION_CHECK=1 CHECKPOINT_DISABLE=1

venv=target/lint
requirements=infra/lint-requirements.txt
# Only their schemas are needed, so their dependencies are left out.
schemas=(check-jsonschema==0.39.0)

# Once, and again when the versions change.
prepare() {
    local wanted
    wanted="$(cat "$requirements" && echo "${schemas[*]}")"
    [ "$(cat "$venv/installed.txt" 2>/dev/null)" = "$wanted" ] && return
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-compile --requirement "$requirements"
    "$venv/bin/pip" install --quiet --no-compile --no-deps "${schemas[@]}"
    echo "$wanted" >"$venv/installed.txt"
}

# Each takes seconds to start, so they run concurrently.
names=() jobs=()
start() {
    names+=("$1")
    "${@:2}" >"$venv/log.${#jobs[@]}" 2>&1 &
    jobs+=($!)
}

prepare
if [ "${1:-}" = prepare ]; then exit; fi
start "sam validate --lint" "$venv/bin/sam" validate --lint --template template.yaml
start "cfn-lint" "$venv/bin/cfn-lint" template.yaml
start "policies, and Terraform against the template" "$venv/bin/python" infra/lint.py
start "actionlint" "$venv/bin/actionlint" -no-color -shellcheck "$venv/bin/shellcheck" -pyflakes=
start "zizmor" "$venv/bin/zizmor" --offline --quiet --color=never .github/workflows
workflow=examples/hosts/github-actions.yml
start "actionlint, the example" "$venv/bin/actionlint" -no-color -shellcheck "$venv/bin/shellcheck" -pyflakes= "$workflow"
start "zizmor, the example" "$venv/bin/zizmor" --offline --quiet --color=never "$workflow"
start "the documentation's site" env NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --quiet
start "compose" "$venv/bin/python" infra/hosts_check.py
start "shellcheck" "$venv/bin/shellcheck" .ci/run infra/*.sh packaging/*.sh
if command -v terraform >/dev/null; then
    start "terraform fmt -check" terraform fmt -check -diff -recursive infra/terraform
else
    echo "there is no terraform: its format was not checked"
fi

failed=0
for job in "${!jobs[@]}"; do
    verdict=ok
    wait "${jobs[$job]}" || { verdict=failed failed=1; }
    printf -- '-- %s: %s\n' "${names[$job]}" "$verdict"
    cat "$venv/log.$job"
done
exit "$failed"
