"""What Scipion runs."""
