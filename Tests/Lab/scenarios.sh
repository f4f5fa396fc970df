# shellcheck shell=bash
# Runs scenarios at once and compares their outcomes with the expected ones. To be sourced.
#
#   scenario_script=PATH
#   scenario DUE NAME ARG…   starts the script; DUE is its expected output, with the lines joined by ", "
#   scenario_outcomes        a line each: "ok|WRONG  OUTCOME  SCENARIO"; 1 if any outcome is not the expected one

scenario_script=
scenario_names=() scenario_due=() scenario_processes=()
scenario_folder=$(mktemp -d)
trap 'rm -rf "$scenario_folder"' EXIT

scenario() {
    local index=${#scenario_names[@]}
    scenario_due+=("$1")
    scenario_names+=("$2")
    shift 2
    bash "$scenario_script" "$@" </dev/null >"$scenario_folder/$index" 2>"$scenario_folder/$index.messages" &
    scenario_processes+=($!)
}

scenario_outcomes() {
    local index outcome status=0
    for index in "${!scenario_names[@]}"; do
        wait "${scenario_processes[index]}" || true
        outcome=$(paste -s -d, "$scenario_folder/$index" | sed 's/,/, /g')
        if [ "$outcome" = "${scenario_due[index]}" ]; then
            printf 'ok     %-35s  %s\n' "$outcome" "${scenario_names[index]}"
        else
            printf 'WRONG  %-35s  %s\n' "${outcome:-none}" "${scenario_names[index]}"
            sed 's/^/       /' "$scenario_folder/$index.messages" >&2
            status=1
        fi
    done
    return $status
}
