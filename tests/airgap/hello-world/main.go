// What `docker run hello-world` runs: that this text is read means that an image was found and a container ran.
package main

import "fmt"

func main() {
	fmt.Println("\nHello from Docker!\nThis message shows that your installation appears to be working correctly.")
}
