#!/bin/bash

set -eo pipefail

cd "$(dirname "$(readlink -f "$0")")"

usage() {
  cat <<'END'
integration-setup.sh: a Kubernetes cluster in Docker with a registry beside it, and this course's stacks in it.

  ./integration-setup.sh             asks five questions; an empty answer takes the one in brackets
  ./integration-setup.sh --defaults  asks nothing and takes those
  ./integration-setup.sh --help      this text

config.env says what is set up and what the defaults are; a variable of the environment comes first:
  DEPLOYMENT_OPTION=1 ./integration-setup.sh --defaults
A second run changes nothing. What stops is said with a remedy; run it again then: what is done stays.
Scripts of your own go into scripts/added/ (see README.md). kind delete cluster --name tutorial undoes it.
END
}

ask_all=yes
case ${1:-} in
  --help | -h) usage && exit ;;
  --defaults) ask_all= ;;
  ?*) echo "unknown option: $1" >&2 && usage >&2 && exit 2 ;;
esac

step() { # NUMBER TITLE
  number=$1 title=$2
  echo "[$number/10] $title"
}

CHANGES=$(mktemp)
export CHANGES
finish() {
  local code=$?
  rm -f "$CHANGES"
  if ((code)); then echo "integration-setup.sh stopped at step $number/10 ($title), exit code $code" >&2; fi
}
trap finish EXIT

step 1 "Loads the configuration"
# shellcheck source=scripts/functions.sh
source scripts/functions.sh
echo "cluster $CLUSTER_NAME of $(realpath --relative-to=.. "$CLUSTER_CONFIG"), $NODE_IMAGE, $REGISTRY_IMAGE"

step 2 "Gives options"

ask() { # VARIABLE QUESTION CHOICES: puts the answer, one of the choices, into the variable; its value is the default
  local answer=
  while true; do
    if [[ -n $ask_all ]]; then
      read -r -p "$2 ($3) [${!1}]: " answer || stop "no answer to: $2" "answer it, or run with --defaults"
    fi
    answer=${answer:-${!1}}
    case " ${3//\// } " in *" $answer "*) break ;; esac
    echo "$answer is none of $3"
    ask_all=yes
  done
  printf -v "$1" %s "$answer"
  export "${1?}"
}

ask SETUP_INTEGRATION "Setup integration" y/n
if [[ $SETUP_INTEGRATION == n ]]; then
  echo "Done: nothing was asked for"
  exit
fi
echo "[1] cluster alone  [2] with the Forwarder  [3] with its scheduler, too  [4] development: what has its images"
ask DEPLOYMENT_OPTION "Please choose deployment option" 1/2/3/4
ask INSTALL_REGISTRY "Install local Docker registry" y/n
ask GPU_CLUSTER "Setup GPU cluster" y/n
ask INSTALL_RAY "Install Ray" y/n
echo "integration $SETUP_INTEGRATION, option $DEPLOYMENT_OPTION, registry $INSTALL_REGISTRY, GPU $GPU_CLUSTER, Ray $INSTALL_RAY"

step 3 "Checks the resources"
scripts/check_resources.sh

step 4 "Checks the OS"
scripts/check_os.sh

step 5 "Runs setup scripts"
if [[ $GPU_CLUSTER == y ]]; then scripts/create_gpu_cluster.sh; else scripts/create_cluster.sh; fi
if [[ $INSTALL_REGISTRY == y ]]; then scripts/install_registry.sh; fi
for script in scripts/added/*.sh; do
  if [[ -f $script ]]; then
    echo "runs $script"
    bash "$script"
  fi
done

step 6 "Applies YAMLs"
scripts/apply_stacks.sh

step 7 "Installs Helm"
scripts/install_helm.sh

step 8 "Installs the GPU operator and nvshare"
scripts/install_gpu_operator.sh

step 9 "Installs Ray"
scripts/install_ray.sh

step 10 "Runs tests"
scripts/run_tests.sh

if [[ -s $CHANGES ]]; then
  echo "Done, changed:"
  sed 's/^/  /' "$CHANGES"
else
  echo "Done: nothing changed"
fi
