"""From labelled images with depth to a labelled map of the world; no ROS needed."""
